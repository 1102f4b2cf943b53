"""The benchmark: an exported model under ONNX Runtime against the model itself in PyTorch."""
