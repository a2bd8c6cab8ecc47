"""The application on SQLAlchemy."""

from tgext.pluggable import plug

from .. import model
from ..evolutions import BackfillSlugs, CountWords, RenameTag
from .common import configurator

base_config = configurator(model)
base_config.update_blueprint({'use_sqlalchemy': True})

plug(base_config, 'tgext.evolve', evolutions=[BackfillSlugs, RenameTag(old='py', new='python'), CountWords])
