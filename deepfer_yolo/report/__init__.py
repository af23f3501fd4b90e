"""Tables, plots and the one self-contained HTML page that audit, evaluate, gate and demo share."""
