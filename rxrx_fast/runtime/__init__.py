"""What every room may use.

==================  ==============================================================================
file                what it holds
==================  ==============================================================================
``threads.py``      ``Pool``: a thread pool that never keeps a process from ending
``buffers.py``      ``Buffers``: host memory for batches that is recycled once nothing refers to it
``topology.py``     which GPU and which processor cores belong to this process
``meter.py``        ``Meter``: seconds of each stage, and who waited for whom
``progress.py``     ``bar``: a progress bar that stays out of logs
``counter_rng.py``  counter-based random numbers: pure functions of integers
``gpu_memory.py``   ``explained``: an exhausted GPU as one line of advice
==================  ==============================================================================
"""
