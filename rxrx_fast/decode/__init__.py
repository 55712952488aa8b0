"""From encoded bytes to stacks of pixels, uint8 or uint16, on the CPU or a GPU.

==================  ===============================================================================================
file                what it holds
==================  ===============================================================================================
``pipeline.py``     ``SitePipeline``: order in, stacks out; what the loader and the statistics iterate over
``base.py``         ``Decoder``: the interface of decoders, and what passes between them, the spine and the pipeline
``choice.py``       ``choose_decoder``: the only place that picks one
``host.py``         ``HostDecoder``: the store decodes in the pool's threads
``dali.py``         ``DaliDecoder``: DALI decodes, on the CPU or with the GPU
``cuda.py``         ``CudaDecoder``: a GPU decodes grayscale 8-bit PNG
``cuda_png.py``     ``PngLauncher``: packs PNG files for a GPU and launches the kernels
``spine.py``        ``Spine``: carries batches to the device; ``QueueSpine``, where DALI is missing
``dali_spine.py``   ``DaliSpine``: the DALI pipeline
``substitutes.py``  ``Substitutes``: sites that are read instead of those that can't be
==================  ===============================================================================================
"""
