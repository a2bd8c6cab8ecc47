"""Who may do what: users are in groups, groups have permissions."""

from sqlalchemy import Column, ForeignKey, Integer, String, Table, select
from sqlalchemy.orm import relationship

from ..lib.passwords import hash_password, verify_password
from . import DBSession, DeclarativeBase, metadata

user_group = Table(
    'tg_user_group',
    metadata,
    Column('user_id', ForeignKey('tg_user.user_id'), primary_key=True),
    Column('group_id', ForeignKey('tg_group.group_id'), primary_key=True),
)

group_permission = Table(
    'tg_group_permission',
    metadata,
    Column('group_id', ForeignKey('tg_group.group_id'), primary_key=True),
    Column('permission_id', ForeignKey('tg_permission.permission_id'), primary_key=True),
)


class User(DeclarativeBase):
    __tablename__ = 'tg_user'

    user_id = Column(Integer, primary_key=True)
    user_name = Column(String(16), unique=True, nullable=False)
    password = Column(String(128), nullable=False)
    groups = relationship('Group', secondary=user_group, back_populates='users')

    @classmethod
    def create(cls, user_name, password, groups=()):
        user = cls(user_name=user_name, password=hash_password(password), groups=list(groups))
        DBSession.add(user)
        return user

    @classmethod
    def by_user_name(cls, user_name):
        return DBSession.scalars(select(cls).filter_by(user_name=user_name)).first()

    def validate_password(self, password):
        return verify_password(password, self.password)

    @property
    def group_names(self):
        return [group.group_name for group in self.groups]

    @property
    def permission_names(self):
        return [permission.permission_name for group in self.groups for permission in group.permissions]


class Group(DeclarativeBase):
    __tablename__ = 'tg_group'

    group_id = Column(Integer, primary_key=True)
    group_name = Column(String(16), unique=True, nullable=False)
    users = relationship('User', secondary=user_group, back_populates='groups')
    permissions = relationship('Permission', secondary=group_permission, back_populates='groups')


class Permission(DeclarativeBase):
    __tablename__ = 'tg_permission'

    permission_id = Column(Integer, primary_key=True)
    permission_name = Column(String(63), unique=True, nullable=False)
    groups = relationship('Group', secondary=group_permission, back_populates='permissions')
