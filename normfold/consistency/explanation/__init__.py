"""Why running statistics depart from data: a module for each kind of cause, and the diagnosis of them all."""
