"""TV-L1 optical flow in PyTorch alone: on a CPU as the reference, on a CUDA device in batches.

The algorithm is that of Zach, Pock and Bischof ("A duality based approach for realtime TV-L1
optical flow", DAGM 2007) in the form of Sánchez, Meinhardt-Llopis and Facciolo (IPOL 2013), with
the details of OpenCV's DualTVL1, whose flow it reproduces (docs/benchmarks.md says how closely).

- :mod:`~vidssl.optical_flow.tvl1.parameters`: its parameters, and numbers that follow from them
- :mod:`~vidssl.optical_flow.tvl1.pyramid`, :mod:`~vidssl.optical_flow.tvl1.median`: image pyramid
  and median filter
- :mod:`~vidssl.optical_flow.tvl1.solver`: the whole algorithm in plain PyTorch
- :mod:`~vidssl.optical_flow.tvl1.torch_tvl1`: the solver on batches of pairs
- :mod:`~vidssl.optical_flow.tvl1.pair_slots`, :mod:`~vidssl.optical_flow.tvl1.scheduler`: the same
  by the kernels of :mod:`vidssl.kernels`, many pairs at once
- :mod:`~vidssl.optical_flow.tvl1.kernel_choice`: kernels or plain PyTorch on a GPU
"""
