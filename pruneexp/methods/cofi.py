"""CoFi: gates on coarse and fine units, learned under a size constraint (Xia, Zhong, Chen 2022, arXiv 2204.00408).

Every head (i, j), FFN unit (i, j), attention sub-layer i and FFN sub-layer i of an encoder has a gate z in [0, 1]:

    MHA_i(X) = z_MHA^i sum_j z_head^(i,j) Att_(i,j)(X)        FFN_i(X) = z_FFN^i gelu(X W_U) diag(z_int^i) W_D

In training each z is a sample of a hard-concrete distribution (`pruneexp.hard_concrete`), drawn anew in every forward
pass. With P = P(z > 0), the expected sparsity s counts the weights of a unit with P_layer P_unit
(`pruneexp.nesting`), and weights and log alpha minimise, lambda_1 and lambda_2 maximise,

    L + lambda_1 (s - t) + lambda_2 (s - t)^2                 t: the scheduled sparsity

after which units are closed for good and fine-tuning follows. The same works for units without nesting, such as the
channels of an image network. The paper's text could not be read beyond its abstract; equations and numbers are those
of the authors' code (princeton-nlp/CoFiPruning). Where this differs:

- No gates on the hidden dimensions. Embeddings are trained unless the optimizer is told otherwise.
- Closing for good. CoFi closes in each layer as many units as their expectation says, a sub-layer where P < 1/2, each
  alone. Rounding a product by its factors, and an expectation that has not settled, can miss the size by far, mostly
  above the target on little data. Here all units compete by P_layer P_unit and close until the size is met
  (`Nesting.closest`). In evaluations before that, `validation/*` is of CoFi's rule and `validation_hard/*` of ours at
  the scheduled sparsity.
- A unit that stays is scaled by its gate without noise, as in CoFi, where the factor enters the weights.
- A sub-layer that is closed leaves its residual path and the normalisation after it, as a network computes whose
  weights are zero; CoFi also drops that normalisation.

    prune-run method=cofi model=bert dataset=glue/mrpc dense=pretrained sparsity=0.6 epochs=120
"""

from pruneexp.methods.gated import Gated


class CoFi(Gated):
    """Gates on whole units, learned with the weights: one row, and the size constraint above."""
