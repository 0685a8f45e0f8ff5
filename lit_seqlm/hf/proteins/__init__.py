"""Weights of protein models in other people's layouts: Megatron's ProteinLM and TAPE's bert-base."""
