"""All of the model on the wafer: what each block takes on a rectangle, and the plan of the pipeline."""
