"""What a stop is, and what is due: decided from facts and the time. Nothing here touches the process."""
