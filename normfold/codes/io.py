"""NF9xx: models, data and files that cannot be used."""

from __future__ import annotations

from normfold.codes._code import Code

IO_CODES: tuple[Code, ...] = (
    Code(
        "NF900",
        "option cannot be used",
        "An option or an argument does not fit the model, another option, or what is installed.",
        "What was asked for cannot be done as it was asked.",
        "The message says what is accepted.",
    ),
    Code(
        "NF901",
        "file cannot be read",
        "The path does not exist, is a folder, is empty, or may not be read.",
        "There is nothing to work on.",
        "Check the path and its permissions.",
    ),
    Code(
        "NF902",
        "not an ONNX file",
        "The file is not a binary ONNX protobuf: it is truncated, damaged, above the 2 GB limit of protobuf, "
        "or of another format.",
        "A model that cannot be decoded completely cannot be written back completely.",
        "Export or download the model again. Models above 2 GB need external data; text formats must be "
        "converted to binary ONNX first.",
    ),
    Code(
        "NF903",
        "invalid model",
        "The file decodes, but it is not a valid ONNX model: a rule of the ONNX specification is broken, for "
        "example an operator that its opset does not have, a tensor whose data does not fit its shape, or "
        "nodes that are not in topological order.",
        "What an invalid model computes is not defined, so no rewrite of it can be proven.",
        "Repair the export. onnx.checker.check_model reports the same fault.",
    ),
    Code(
        "NF904",
        "sparse initializer",
        "The model stores a weight as a sparse tensor.",
        "The in-memory representation does not keep sparse tensors: the weight would be lost.",
        "Convert the sparse weights to dense initializers before folding.",
    ),
    Code(
        "NF905",
        "training info",
        "The model carries training_info (an initialization or a training step).",
        "It would be lost, and it may update the very weights that a fold rewrites.",
        "Export the model for inference, or remove training_info.",
    ),
    Code(
        "NF906",
        "cycle",
        "A node needs, directly or through others, a value that it produces itself; or a local function "
        "calls itself.",
        "No order of execution exists.",
        "Repair the tool that produced the graph.",
    ),
    Code(
        "NF907",
        "dangling input",
        "A node or a graph output reads a value that nothing produces.",
        "The value has no meaning.",
        "Repair the tool that produced the graph; often a node or an initializer was removed under its "
        "readers.",
    ),
    Code(
        "NF908",
        "duplicate value name",
        "Two values of the graph have the same name.",
        "ONNX requires static single assignment: a reader could not tell which of the two is meant.",
        "Rename one of the two.",
    ),
    Code(
        "NF909",
        "external data missing or too short",
        "A weight lies in an external data file that does not exist, cannot be read, or ends before the "
        "weight does.",
        "The weight is not known.",
        "Keep the model and its data files in the same folder, and copy them again if a transfer was cut "
        "short.",
    ),
    Code(
        "NF910",
        "external data not inside the model's folder",
        "External data has an absolute path, leaves the model's folder, or is reached through a symbolic "
        "link or a file with several hard links.",
        "A model from elsewhere could make the tool read any file of this machine. The ONNX checker and "
        "onnxruntime refuse such models too.",
        "Copy the data file itself into the model's folder (for a download cache: copy the model out of it, "
        "following links).",
    ),
    Code(
        "NF911",
        "model is newer than the installed onnx",
        "The model's IR version or the version of a standard operator set is not known to the installed "
        "onnx package.",
        "The meaning of its operators is not known, so nothing could be proven.",
        "Upgrade onnx (pip install -U onnx onnx-ir), or export with an older opset.",
    ),
    Code(
        "NF912",
        "operator set not declared",
        "A node uses an operator domain for which the model imports no operator set version.",
        "Without a version the operator has no meaning.",
        "Add the missing opset_import to the model, or repair the export.",
    ),
    Code(
        "NF913",
        "unsupported construct",
        "The model is valid, but uses a part of ONNX that cannot be carried through unchanged, for example "
        "an attribute or a value of a type that the in-memory representation does not have.",
        "Writing the model back would lose it.",
        "Report the model; until then fold the parts around the construct separately.",
    ),
    Code(
        "NF920",
        "result cannot be written",
        "The output's folder does not exist or is read-only, the disk is full, or the output is something "
        "that cannot take a model.",
        "A partial file is worse than none: nothing was changed.",
        "Choose another destination, or make room.",
    ),
    Code(
        "NF921",
        "result too large for a single file",
        "The result is above the 2 GB limit of protobuf and has to be written to a stream.",
        "A stream cannot have external data beside it.",
        "Write to a file with -o; weights then go into an external data file.",
    ),
    Code(
        "NF930",
        "process died",
        "In a batch, the process that folded this model ended without an answer, twice: the second time it "
        "had no other model beside it.",
        "Most often the system ended it for its memory; or a library below crashed. Nothing was written for "
        "this model, and the others are not affected.",
        "Fold it on a machine with more memory, or with --no-verify if that is where it needs it; a model "
        "that crashes a library is worth a report.",
    ),
    Code(
        "NF999",
        "internal error",
        "normfold met a situation that it does not expect.",
        "Nothing was written. This is a defect of normfold, not of the model.",
        "Run again with NORMFOLD_DEBUG=1 in the environment and report the traceback.",
    ),
)
