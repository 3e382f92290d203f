"""The explorer, a Streamlit application that shows the results, and the reports made from the results."""
