"""What is deployed: the float32 model itself, its int8 form, or a library that TVM compiled, as the table that priced it says."""
