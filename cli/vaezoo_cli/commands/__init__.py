"""One file per command. Their modules import torch and rich only when the command runs."""
