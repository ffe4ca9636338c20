"""From a trained network to an ONNX file, and the proof that both compute the same."""
