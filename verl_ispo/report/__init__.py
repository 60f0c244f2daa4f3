"""``verl-ispo report``: one self-contained HTML file of what one's own runs did, from verl's logs and ISPO's dump."""
