"""What folders and cells are called that divide pictures, in the spellings and languages that people use."""

import unicodedata

import pytest

from cl_complora.data.names.split_names import role_of, roles_of

NAMES = {
    "train": "Train TRAINING train_images seg_train 01_train train_v2 Trainingsdaten entraînement"
    " entrenamiento treino обучение 训练集 訓練 学習データ 훈련",
    "test": "Test testing images.test 02-test test_v1 prueba Prova teste тест 测试集 テスト 테스트",
    "validation": "val Valid dev Validierung validación validação validazione 验证集 検証",
}


@pytest.mark.parametrize(
    ("role", "name"), [(r, name) for r, names in NAMES.items() for name in names.split()]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_splits_are_recognised(role, name, form):
    assert role_of(unicodedata.normalize(form, name)) == role


@pytest.mark.parametrize(
    "name", ["cat", "trainer", "steam train", "contest", "valley", "42", "集", "data", "v2"]
)
def test_classes_are_no_splits(name):
    assert role_of(name) is None


@pytest.mark.parametrize(
    "names",
    [("flowers.test", "flowers.train"), ("my-test", "my-train"), ("test_of_pets", "train_of_pets")],
)
def test_what_all_names_share_is_left_out(names):
    roles = roles_of(names)
    assert (roles.test, roles.train, roles.others) == ([names[0]], [names[1]], [])


@pytest.mark.parametrize(
    "names", [("crash-test", "stress-test"), ("my-train", "steam-engine"), ("a-cat", "a-dog")]
)
def test_names_that_only_sound_like_it_are_not_split(names):
    assert roles_of(names).others == sorted(names)
