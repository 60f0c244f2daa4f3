"""``verl-ispo report``: one self-contained HTML file on your own runs, from verl's logs and ISPO's dump."""
