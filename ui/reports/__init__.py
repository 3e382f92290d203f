"""Reports as files: the audit of the paper and the atlas. Nothing here uses Streamlit."""
