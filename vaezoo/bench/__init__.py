"""Benchmark an exported model in ONNX Runtime against the model in PyTorch."""
