"""BlazePose on a CPU: joints and mask of people in one pass, by its two published networks.

- :mod:`~vidssl.views.blazepose.weights`: where the networks' files are found
- :mod:`~vidssl.views.blazepose.interpreter`: runs a network
- :mod:`~vidssl.views.blazepose.detector`: people in a whole frame
- :mod:`~vidssl.views.blazepose.landmarks`: joints and mask of one person
- :mod:`~vidssl.views.blazepose.regions`: the turned squares that both speak of
- :mod:`~vidssl.views.blazepose.tracking`: from frame to frame
- :mod:`~vidssl.views.blazepose.drawing`: joints and masks as frames of the views
- :mod:`~vidssl.views.blazepose.derivers`: all of it for `vidssl extract-view`

Nothing here imports PyTorch.
"""

BLAZEPOSE = "blazepose"  # its name in --model
