"""Export encoder and decoder to ONNX and compare the graphs with the model."""
