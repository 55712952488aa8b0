"""A synthetic RxRx1 that anyone can generate: the real structure, files and metadata.

===================  ==================================================================================
``randomness``       random generators named by what they are for
``phenotypes``       cell types, and what each siRNA changes about the cells
``batch_effects``    what an experiment, a plate and a well's position change
``design``           which experiments, plates and wells exist, and the siRNA in each well
``render_kernels``   compiled loops: place cells, draw, shade, expose
``cells``            tables of a site's cells and of what is drawn in them
``render``           one site, from its description to uint8 images
``writer``           ``generate``: all files and the metadata of a data set
===================  ==================================================================================
"""
