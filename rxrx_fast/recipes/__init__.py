"""Recipes: the two systems that the loader was made for, to be run, read and changed.

=============== ====================================================================================================
classify.py     the RxRx1 task: name the siRNA in experiments not trained on
correct.py      corrections of the batch effect side by side, on pixels and on embeddings
deepnoise.py    DeepNoise: mean teacher, ArcFace, pseudo-labels, one siRNA a well; teacher.py: the teacher
splits.py       which experiments are trained on, which are held out
pixels.py       corrections of pixels by name: what the loader normalises, and how batches are grouped
embeddings.py   corrections of embeddings: centring, sphering (TVN), CORAL, ComBat, Harmony
backbones.py    networks from six channels to an embedding; heads.py: linear and ArcFace
trainer.py      the training loop: mixed precision, accumulation, DDP, exact resume; runlog.py: its CSV
predict.py      logits and embeddings with test-time augmentation, adaptive batch normalisation, means over wells
metrics.py      accuracy, top-5, retrieval; mixing.py: how much of the batch is left
plates.py       which siRNAs a plate can carry, balance, and one siRNA a well
leaks.py        whether labels leak past the pictures; figures.py: pictures of results
=============== ====================================================================================================

Plain PyTorch throughout; what is special is what the loader does: eight turned copies or three policies from one
decode, batches of one plate, whole plates in a row, and a state that resumes in the middle of an epoch.
"""
