"""What the gate looks at, one file for each thing that can be wrong; `dicom_sr/check.py` puts them together."""
