"""The FFN layers: a selection picks blocks, experts compute them, a stack adds depth.

These modules and `search_space.spec` are copied into every exported model, so they
import torch and the standard library only.
"""
