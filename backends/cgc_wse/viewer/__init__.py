"""`viewer.html`: one page that shows a plan without a server or a network.

`page` puts the data of a plan into the page; `viewer.css` and `viewer.js` are what the page is made of.
"""
