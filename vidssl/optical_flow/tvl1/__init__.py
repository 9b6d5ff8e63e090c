"""TV-L1 optical flow in PyTorch alone: on a CPU as the reference, on a CUDA device in batches.

The algorithm is Zach, Pock and Bischof's ("A duality based approach for realtime TV-L1 optical
flow", DAGM 2007) in the form of Sánchez, Meinhardt-Llopis and Facciolo (IPOL 2013) with the
details of OpenCV's DualTVL1, whose flow it gives (docs/benchmarks.md says how closely).

- :mod:`~vidssl.optical_flow.tvl1.parameters`: the numbers, and what follows from them
- :mod:`~vidssl.optical_flow.tvl1.pyramid`, :mod:`~vidssl.optical_flow.tvl1.median`: parts
- :mod:`~vidssl.optical_flow.tvl1.solver`: all of it in plain PyTorch
"""
