"""The audit of the paper and the atlas, as files; nothing here knows Streamlit."""
