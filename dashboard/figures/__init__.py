"""Plotly figures as plain data, made of a `Reading`; no Streamlit."""
