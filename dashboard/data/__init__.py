"""What the pages know of a database: plain values and pandas frames, no Streamlit."""
