"""What the application does: joins the models, the library and the views."""
