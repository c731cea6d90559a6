"""Where two models part: values that correspond, the first that differs, the smallest pair that shows it."""
