"""An example and a study on a pretrained language model, from one command, on a CPU or on GPUs."""
