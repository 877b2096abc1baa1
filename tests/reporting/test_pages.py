from lurm.reporting.pages import render
from lurm.reporting.validation_page import validation_page


def test_pages_share_one_look():
    refused = validation_page(month="2017-05", delivery="x", refusal="it is <empty>")
    look = render("base.html").split("<style>")[1].split("</style>")[0]
    assert "".join(refused.split("<style>")[1].split("</style>")[0].split()) == "".join(
        look.split()
    )
    assert "it is &lt;empty&gt;" in refused
