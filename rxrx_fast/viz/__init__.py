"""Pictures of sites, plates and batches, for people.

=======================  ==============================================================================
file                     what it holds
=======================  ==============================================================================
``site.py``              ``draw_site``: the channels of a site and their composite
``plates.py``            ``draw_plates``: plates before and after normalisation
``augmented.py``         ``draw_augmented``: a site as a policy augments it
``batch.py``             ``draw_batch``: a batch as a montage
``statistics_table.py``  ``statistics_table``: means and standard deviations as text
``stains.py``            what each channel shows; composites
``choice.py``            which sites a picture shows
``pixels.py``            their pixels
``figure.py``            ``DarkFigure``: layout in inches, and the file
=======================  ==============================================================================
"""
