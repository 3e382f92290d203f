"""Reports as files: the audit of the paper, the atlas, the static explorer of a release. Without Streamlit."""
