"""How the application is put together: app_cfg on SQLAlchemy, ming_cfg on MongoDB."""
