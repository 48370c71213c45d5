"""Codecs -> what they cost and what they look like, beside conventional codecs at equal bytes and published curves.

SOURCE ->[encode, the real pipeline]-> archive ->[another process]-> pictures ->[metrics]-> Evaluation -> JSON, HTML
"""
