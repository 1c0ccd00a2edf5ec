"""Values and words that every part shares. Nothing here imports anything of ours from outside this folder."""
