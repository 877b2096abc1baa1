"""Adapters: public data sets, turned into the deliveries of ``lurm.landing``."""
