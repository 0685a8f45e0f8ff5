"""Weights in other people's layouts: MoLFormer's Lightning checkpoint and its Hugging Face folder."""
