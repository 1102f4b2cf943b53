"""Export: ONNX graphs of encoder and decoder, compared with the model they came from."""
