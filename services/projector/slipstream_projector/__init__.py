"""The projector: folds the control log into rows."""
