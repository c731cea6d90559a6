"""onnxruntime, in processes of its own: a crash or a hang there ends nothing here, and nothing here disturbs
it.

``serving`` and ``timing`` run in those processes; they and what they import need numpy and onnxruntime only.
"""
