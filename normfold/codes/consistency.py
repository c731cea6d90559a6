"""NF3xx: where evaluation may not mean what training meant. NF301 on need the model alone, NF340 on data."""

from __future__ import annotations

from normfold.codes._code import Code

_STATIC: tuple[Code, ...] = (
    Code(
        "NF301",
        "normalises with the batch",
        "A normalisation computes its statistics from the batch: the node is in training mode by the rule "
        "of its opset (1 and 6: is_test is not 1; 7 to 13: more than one output; from 14 on: "
        "training_mode), or its mean and variance are computed from its input.",
        "What the model says of one sample depends on the samples beside it, and on the size of the batch.",
        "Call model.eval() and export again (TorchScript: training=TrainingMode.EVAL; old converters: "
        "is_test=1). A layer with track_running_stats=False has no statistics to evaluate with: train it "
        "with running statistics.",
    ),
    Code(
        "NF302",
        "active Dropout",
        "A Dropout drops values at inference: training_mode is true or unknown (opset 12 on), or is_test "
        "is not 1 (opset 1 and 6), and its ratio is not 0.",
        "The output is random, and the model was exported from train(), so its BatchNorm may be in "
        "training mode as well.",
        "Call model.eval() and export again.",
    ),
    Code(
        "NF303",
        "exported from train()",
        "The exporter's metadata on a node names _native_batch_norm_legit_functional, which torch uses in "
        "train() only.",
        "The module was in training mode while it was exported. The node in the file evaluates with "
        "running statistics, but they may have been updated by the dummy input, and Dropout may be active.",
        "Call model.eval() and export again.",
    ),
    Code(
        "NF304",
        "statistics never trained",
        "The running mean of a layer is 0 and its running variance 1 in every channel: what a layer starts"
        " with.",
        "The layer does not normalise in evaluation. Its statistics were never updated (momentum 0, frozen"
        " buffers), or the checkpoint was loaded without its buffers (strict=False, parameters only).",
        "Load the buffers running_mean and running_var too, or estimate them from data: normfold calibrate.",
    ),
    Code(
        "NF305",
        "negative variance",
        "A running variance is below zero.",
        "No data has one. Where variance + epsilon is negative the output is NaN; where it is just above "
        "zero, it is huge. Averaging or quantising checkpoints, and momentum above 1, do this.",
        "Estimate the statistics again: normfold calibrate.",
    ),
    Code(
        "NF306",
        "NaN or infinite parameter",
        "A scale, shift, mean or variance is not finite.",
        "A NaN there is NaN in every output behind it; an infinite variance makes the channel a constant.",
        "Look for the step at which training diverged, and go back to a checkpoint before it.",
    ),
    Code(
        "NF307",
        "large epsilon",
        "The epsilon of a normalisation is 0.01 or more, where frameworks default to 1e-5 (torch, ONNX, "
        "Caffe) or 1e-3 (Keras).",
        "It weighs as much as the variance of quiet channels, so they are scaled down instead of normalised.",
        "If it is not meant, train again with the usual epsilon: the weights have adapted to it, so "
        "editing the file would change what the model computes.",
    ),
    Code(
        "NF308",
        "momentum given as epsilon",
        "The epsilon of a normalisation is a number that is usual for a momentum.",
        "The second positional argument of torch's BatchNorm is eps, not momentum: nn.BatchNorm2d(64, 0.8)"
        " sets eps to 0.8.",
        "Write nn.BatchNorm2d(64, momentum=...) and train again. Editing the file would change what the "
        "model computes.",
    ),
    Code(
        "NF309",
        "mixed epsilon",
        "BatchNormalization layers of one model have different epsilons.",
        "Parts from different frameworks, or a converter that lost the attribute in places, leave this "
        "behind.",
        "Compare with the epsilon of each layer in the source; nothing to do if they are the same.",
    ),
    Code(
        "NF310",
        "extreme amplification",
        "A channel is multiplied by more than 1e4: the scale over the square root of variance + epsilon.",
        "The variance seen in training was almost 0. Any input that makes the channel move at all is blown"
        " up, and rounding with it.",
        "Prune the channel, or estimate the statistics again on data that exercises it: normfold calibrate.",
    ),
    Code(
        "NF311",
        "beyond float16 after folding",
        "With the normalisation folded in, a weight or bias is above 65504, the largest float16.",
        "A conversion to float16 gives infinities.",
        "Keep this layer in float32 or bfloat16, or look at the channel: its variance is usually close to 0.",
    ),
    Code(
        "NF312",
        "subnormal in float16 after folding",
        "With the normalisation folded in, the largest weight of a channel is below 2^-14, where float16 "
        "loses digits.",
        "A conversion to float16 rounds the channel coarsely, or to zero.",
        "Keep this layer in float32 or bfloat16; nothing to do where the channel is dead.",
    ),
    Code(
        "NF313",
        "dead channel",
        "A channel is a constant after the normalisation: its scale is 0 (or far below its neighbours'), "
        "or its variance is 0.",
        "It is computed and says nothing.",
        "Prune it; what it adds is a constant that fits into the next bias. Scales that are all 0 are "
        "often meant: residual blocks start that way.",
    ),
    Code(
        "NF314",
        "bias that a normalisation takes out",
        "A linear operator has a bias, and its only reader is a normalisation that subtracts the mean.",
        "In training the bias had no effect and its gradient was zero; in evaluation it must agree with "
        "the running mean. Folding removes it.",
        "Train with bias=False in front of a normalisation. Nothing to do in the file.",
    ),
    Code(
        "NF315",
        "Caffe statistics not divided",
        "Running means and variances are larger, by one common factor, than the weights and the layers in "
        "front can produce.",
        "Caffe stores sums: mean and variance must be divided by the layer's third blob. A converter that "
        "forgets it leaves a model whose normalised values are far too small.",
        "Convert again with a converter that divides by the third blob, or estimate the statistics: "
        "normfold calibrate.",
    ),
    Code(
        "NF316",
        "normalisation over one element",
        "A normalisation takes its statistics over a single element.",
        "The element minus its own mean is 0, so the output is the constant shift, whatever comes in.",
        "Check the shapes: a pooled 1x1 map in front of InstanceNorm, or a batch of one vector in training"
        " mode.",
    ),
    Code(
        "NF317",
        "epsilon outside the square root",
        "A written-out normalisation divides by the standard deviation plus epsilon, not by the square "
        "root of variance plus epsilon.",
        "It differs from every framework's normalisation where the variance is small, and no runtime "
        "recognises it.",
        "Nothing if it was trained that way; otherwise write sqrt(var + eps) and train again.",
    ),
    Code(
        "NF318",
        "statistics per position",
        "A BatchNormalization of opset 8 or older has spatial=0: one mean and variance for each channel "
        "and position.",
        "Few runtimes compute it, converters drop the attribute, and the statistics fit one image size only.",
        "Convert the model to opset 9 or later by folding it, and compare its outputs with the source.",
    ),
    Code(
        "NF319",
        "folded by the exporter",
        "The exporter's metadata say that a BatchNorm was fused into this weight.",
        "Its running statistics are no longer in the file, so nothing here or with data can check them.",
        "To check them, export without optimisation (torch.onnx.export(..., optimize=False)) and look at "
        "that file.",
    ),
)

_DATA: tuple[Code, ...] = (
    Code(
        "NF340",
        "running statistics depart from the data",
        "Mean or variance of a layer's input over the data differ from its running statistics by more than"
        " sampling noise.",
        "Evaluation then normalises with numbers that do not describe what comes in.",
        "Look at the first layer that departs and at the finding on its likely cause; normfold calibrate "
        "estimates anew.",
    ),
    Code(
        "NF341",
        "too few samples to judge",
        "The data hold fewer samples than are needed to tell a departure from sampling noise.",
        "Positions of one image are not independent: only samples count.",
        "Give at least 64 samples, better a few hundred.",
    ),
    Code(
        "NF342",
        "stale statistics",
        "The running means are not what the weights in front of the layer produce, while those of the data "
        "are: they look like those of an earlier state of the weights.",
        "The weights went on changing after the statistics were last updated, or the momentum was too "
        "small to follow.",
        "Estimate them again on training data: normfold calibrate.",
    ),
    Code(
        "NF343",
        "momentum the wrong way round",
        "The running statistics lie close to their initial values 0 and 1, by one common share in every "
        "layer; or they scatter like those of the last few batches alone.",
        "The momentum of torch weighs the new batch, that of Keras, TensorFlow and ONNX the old value: "
        "0.99 or 0.01 in the wrong framework keeps either too little or too much.",
        "Use 1 - momentum, and estimate the statistics again: normfold calibrate.",
    ),
    Code(
        "NF344",
        "tiny training batches",
        "The running statistics scatter around those of the data as averages over very small batches do.",
        "In training every batch was normalised by its own noisy statistics; evaluation does something else.",
        "Train with larger or synchronised batches, or use GroupNorm; normfold calibrate helps where the "
        "statistics alone are at fault.",
    ),
    Code(
        "NF345",
        "data of another domain",
        "The running means are what the weights in front of the layers produce, but of other data: the "
        "departure is that of the inputs, and no usual preparation explains it.",
        "The data do not look like what the model was trained on.",
        "Check that the data are what the model is for; if they are, normfold calibrate adapts the "
        "statistics.",
    ),
    Code(
        "NF346",
        "input range",
        "The inputs look scaled by a constant such as 255 against what the first normalisation expects.",
        "Pixels of 0 to 255 where training had 0 to 1, or the reverse, are the most common mistake of "
        "preprocessing.",
        "Scale the inputs as in training. Calibrating would hide the mistake, not repair it.",
    ),
    Code(
        "NF347",
        "input mean and standard deviation",
        "The inputs look as if the mean and standard deviation of the training set were not taken out, or "
        "taken out twice.",
        "The first layer then sees shifted and scaled pixels.",
        "Normalise the inputs as in training.",
    ),
    Code(
        "NF348",
        "channel order",
        "With the channels of the input reversed the statistics of the first layers fit better.",
        "RGB was given where BGR was trained on, or the reverse.",
        "Reverse the channels in the preprocessing.",
    ),
    Code(
        "NF349",
        "Bessel's correction",
        "The running variances are larger than those of the data by n/(n-1) for one small n.",
        "The framework normalised with the biased variance in training and stored the unbiased one; for "
        "small n they differ.",
        "Multiply by (n-1)/n, or estimate the statistics again: normfold calibrate.",
    ),
    Code(
        "NF350",
        "evaluation departs from training",
        "With batch statistics the model gives other outputs than with running statistics, beyond what "
        "batches vary by.",
        "What was optimised in training is not what is deployed.",
        "The layers are ranked by what they contribute; begin with the first.",
    ),
    Code(
        "NF351",
        "output depends on the batch",
        "The output for a sample changes with the samples that it is batched with.",
        "Something takes statistics, or an order, over the batch axis.",
        "Export in evaluation mode; look for operators that reduce over axis 0.",
    ),
    Code(
        "NF352",
        "calibration does not help",
        "With re-estimated statistics the model still departs from what it did in training.",
        "The running statistics are not, or not alone, the cause; or a layer's own output comes back to it "
        "through a loop, and its statistics do not settle.",
        "Look at the other findings: preprocessing, epsilon, or data of another domain.",
    ),
    Code(
        "NF353",
        "layer not measured",
        "The input of a layer is not computed on the way to an output, or no branch or iteration that holds "
        "it runs on the data; or a caller may override its parameters; or the layer was folded and cannot be "
        "put back; or the model has none.",
        "Nothing can be said of its statistics.",
        "The message says what is in the way.",
    ),
    Code(
        "NF354",
        "running variance off by a factor",
        "The running variances differ from those of the data by one common factor, while the means agree.",
        "Something scaled the variances alone: a converter, a sum that was never divided, a unit that was "
        "never squared.",
        "Estimate the statistics again: normfold calibrate.",
    ),
    Code(
        "NF355",
        "file and module disagree",
        "The module in evaluation mode and the exported model give different outputs, or buffers of other "
        "values.",
        "The file was exported from another state of the module.",
        "Export again from the module as it is: normfold.torch.export.",
    ),
)

CONSISTENCY_CODES: tuple[Code, ...] = (*_STATIC, *_DATA)
