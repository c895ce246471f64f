"""DICOMweb: what the node holds, searched by QIDO-RS and retrieved by WADO-RS, below `/dicom-web`.

Rights are those of the window: a session or a bearer token that may read. What is asked and what leaves is in the
audit, as for C-FIND and C-GET.

Source:  PS3.18 (Web Services)
"""
