"""What the command and the page both show: figures, and in `trial_rows` the columns of tables.

Figures are plain data for plotly.js, and Plotly's own objects. Plotly is imported when one is made,
so that importing this package costs nothing.
"""
