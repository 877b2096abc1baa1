"""Interests: clusters of items, and the items' places among them (paper 2.1.2).

``clustering`` finds the centres, ``assignment`` gives every item its interest, ``description`` says
in figures and in words what came out.
"""
