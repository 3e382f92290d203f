"""The frames behind the pages of the explorer; nothing here uses Streamlit."""
