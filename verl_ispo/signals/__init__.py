"""ISPO's maths in plain torch: no verl, no Ray, no tokenizer library. One small function per equation."""
